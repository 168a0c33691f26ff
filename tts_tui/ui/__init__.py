"""What people see of a search. The only package that imports rich or textual."""
