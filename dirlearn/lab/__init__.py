"""Where the book's experiments are made; the library never imports it."""
