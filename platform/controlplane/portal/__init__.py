"""The tenants' portal: pages over the rooms' selectors and services, which decide."""
