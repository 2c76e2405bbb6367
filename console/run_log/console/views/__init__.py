"""What people and programs see: tables and sheets on a terminal, JSON for programs."""
