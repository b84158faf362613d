"""The JSON contract: typed, versioned records that link the stages."""
