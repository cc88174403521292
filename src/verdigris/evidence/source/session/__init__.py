"""Sessions: who opens, holds and ends them, what they loaded and what of it is expired, who uses them afterwards."""
