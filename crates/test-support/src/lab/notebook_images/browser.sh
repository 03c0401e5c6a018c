# Chromium, and the program that drives it.
packages chromium chromium-driver fonts-dejavu-core
