# The end of the script of each image.
rm -rf /root/.cache /tmp/* /var/cache/apt/* /var/lib/apt/lists/*
