"""From raw tables to the first answer."""
