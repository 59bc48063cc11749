"""The demo page of `make run`: nginx/www/demo.html."""

from parts import ROOT

# A host of its own elsewhere. Here, nginx passes the requests on, because a browser does not trust the stand-in's certificate.
SIGNED_URLS = """
location /demo/results/ {{
    proxy_pass {standin}/;
}}
"""


def serve(stack) -> str:
    """Starts the stack's nginx, with the page; returns the page's address. With the stand-in, it starts with some tasks."""
    nginx, standin = stack.nginx, stack.standin
    text = (ROOT / "nginx" / "www" / "demo.conf").read_text()
    text = text.replace("http://STATUS:", f"http://unix:{nginx.status_socket}:").replace("/usr/share/taskproxy/www", f"{nginx.prefix}/taskproxy/www")
    has_standin = stack.config["upstreams"]["main"]["base_url"] == standin.url
    if has_standin:
        text += SIGNED_URLS.format(standin=standin.url)
    nginx.prefix.mkdir(exist_ok=True)
    (nginx.prefix / "demo.conf").write_text(text)
    nginx.changes["include taskproxy/taskproxy.conf;"] = "include taskproxy/taskproxy.conf;\n    include demo.conf;"
    nginx.start()
    if has_standin:
        standin.switch(own_urls=f"{nginx.url}/demo/results")
    return f"{nginx.url}/" if has_standin else f"{nginx.url}/demo/"
