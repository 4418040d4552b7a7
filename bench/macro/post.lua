-- wrk: POST of 1 KiB.
wrk.method = "POST"
wrk.path = "/sink"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("p", 1024)
