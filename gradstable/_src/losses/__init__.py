"""The loss side: penalties, bounded losses, and gradients from the worst point nearby."""
