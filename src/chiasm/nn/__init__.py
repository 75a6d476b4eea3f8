"""What several slots share: losses, activations, random numbers of requests, what learns outside of gradients."""
