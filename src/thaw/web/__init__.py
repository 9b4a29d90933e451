"""What every server of Thaw needs: limits, a guard around the application, and a socket to listen on."""
