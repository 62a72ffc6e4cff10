"""One module or small folder per API format; ``base`` says what each offers. A codec never imports another."""
