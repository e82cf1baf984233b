"""Host side: drives one worker for each plugin."""
