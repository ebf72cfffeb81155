"""What training in few bits needs: a loss scale, small moments, and parameters that move."""
