"""Sources: each lists and reads the images and labels of one data set or folder layout. One file a data set."""
