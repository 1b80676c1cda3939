"""Reads. Tenants' rows take the organization first; ``fleet`` sees every organization, for parts of
ours.
"""
