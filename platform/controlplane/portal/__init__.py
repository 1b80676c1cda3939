"""The tenants' portal: pages over the rooms' selectors and services. It decides nothing they decide."""
