"""Result files read again, and the pages, tables and plots made of them."""
