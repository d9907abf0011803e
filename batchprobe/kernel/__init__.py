"""What the running kernel is and offers: questions only, nothing is changed."""
