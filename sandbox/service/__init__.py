"""The judge over HTTP and over a cluster. The server needs the extra `service`, Ray the extra `ray`."""
