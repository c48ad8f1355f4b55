"""SFT and GRPO on TRL's trainers. Importing this package imports nothing heavy; its modules import torch."""
