"""Networks: what sees pictures and scores actions."""
