"""The ground floor: types, reductions, reasons and checks that every room can use."""
