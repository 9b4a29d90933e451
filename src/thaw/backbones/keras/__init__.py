"""Networks of Keras as data: their graph as native PyTorch modules, and their files; Keras itself is not needed."""
