"""What comes from outside and goes back there: pictures and weights in the forms that other people use."""
