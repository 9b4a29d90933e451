"""Networks of Keras as data: their graph, rebuilt from native PyTorch modules; Keras itself does not run them."""
