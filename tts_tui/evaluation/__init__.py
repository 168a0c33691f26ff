"""Problems, training and reports."""
