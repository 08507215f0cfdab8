"""Manage.Update: collecting the committee's signatures on a settlement and submitting it (PoT 3.3.4)."""
