"""The clustering of docs/method.md, section 5, in less time and bounded memory."""
