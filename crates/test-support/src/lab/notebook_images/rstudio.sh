# What an image of RStudio asks of who starts it. The real one can't be pulled where the lab is.
packages python3
useradd --create-home --shell /bin/bash --uid 1000 rstudio
install --mode=755 /mnt/recipe/rstudio.py /init
