"""The MPS audit: does torch have a kernel for MPS for every operation of both models?"""
