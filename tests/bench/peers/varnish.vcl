vcl 4.1;

# Varnish in front of the upstream. It cannot read the state in a body, so each answer is fresh for one poll interval; older ones
# are served while a new one is fetched.
backend task_api {
    .host = "127.0.0.1";
    .port = "@UPSTREAM@";
}

sub vcl_recv {
    if (req.http.Authorization != "Bearer @TOKEN@") {
        return (synth(401));
    }
    unset req.http.Authorization;
    return (hash);
}

sub vcl_backend_fetch {
    set bereq.http.Authorization = "Bearer @KEY@";
}

sub vcl_backend_response {
    set beresp.ttl = 2s;
    set beresp.grace = 10m;
}

sub vcl_deliver {
    set resp.http.X-Request-Id = req.xid;
    set resp.http.X-Cache = "MISS";
    if (obj.hits > 0) {
        set resp.http.X-Cache = "HIT";
    }
}
