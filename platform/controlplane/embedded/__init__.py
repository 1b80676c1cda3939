"""The whole product on one machine: which parts, with which environment, in which folder."""
