"""The demo page of `make run` (nginx/www/demo.html), in a running stack whose nginx has not started yet."""

from parts import ROOT


def serve(stack) -> str:
    """Starts nginx with the page; returns its address. The stand-in's signed URLs then lead to nginx, because a browser does
    not trust the stand-in's certificate."""
    addresses = {"STATUS": f"unix:{stack.nginx.status_socket}", "STANDIN": stack.standin.url, "alias www/": f"alias {stack.nginx.prefix}/www/"}
    text = (ROOT / "nginx" / "www" / "demo.conf").read_text()
    for name, address in addresses.items():
        text = text.replace(name, address)
    stack.nginx.prefix.mkdir(exist_ok=True)
    (stack.nginx.prefix / "demo.conf").write_text(text)
    stack.nginx.changes["include taskproxy/taskproxy.conf;"] = "include taskproxy/taskproxy.conf;\n    include demo.conf;"
    stack.nginx.start()
    stack.standin.switch(own_urls=f"{stack.nginx.url}/demo/results")
    return stack.nginx.url
