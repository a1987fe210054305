"""Methods of adaptation that come with the program."""
