#!/usr/bin/env python3
"""Opens a report in headless Chromium with the network off and says whether it is fit to be read.

Usage: scripts/check_page.py PAGE.html [--screenshot OUT.png]

Needs only Debian's `chromium` and `chromium-driver`. Exit code 0: fit; 1: not fit, or not to be judged.
"""

import argparse
import base64
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:9",
]

# Runs in the page; answers with plain data only.
LOOK = """
const box = e => { const b = e.getBoundingClientRect(); return {width: b.width, height: b.height}; };
const seen = e => { const b = box(e); return b.width > 0 || b.height > 0; };
return {
  title: document.title,
  text: document.body ? document.body.innerText.trim().length : 0,
  scheme: matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light',
  background: document.body ? getComputedStyle(document.body).backgroundColor : '',
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  requests: performance.getEntriesByType('resource').map(r => r.name),
  data: (() => { try { return typeof JSON.parse(document.getElementById('result').textContent); } catch (e) { return String(e); } })(),
  charts: [...document.querySelectorAll('figure[id^=chart-]')].map(f => {
    const svg = f.querySelector('svg');
    return {
      id: f.id,
      svg: svg ? box(svg) : null,
      label: svg ? svg.getAttribute('aria-label') || '' : '',
      shapes: svg ? [...svg.querySelectorAll('path,polyline,polygon,rect,circle')].filter(seen).length : 0,
      texts: svg ? [...svg.querySelectorAll('text')].filter(t => t.textContent.trim() && seen(t)).length : 0,
      unpainted: svg ? [...svg.querySelectorAll('text')].filter(t => {
        const fill = getComputedStyle(t).fill;
        return fill === 'none' || fill === getComputedStyle(f).backgroundColor;
      }).length : 0,
      caption: (f.querySelector('figcaption') || {textContent: ''}).textContent.trim(),
    };
  }),
};
"""


class Driver:
    """The few words of the WebDriver protocol that the check needs."""

    def __init__(self, profile):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Nothing here leaves the machine, whatever proxy the environment names.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._wait()
        options = {"args": FLAGS + [f"--user-data-dir={profile}"]}
        capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        value = self.call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.session = f"/session/{value['sessionId']}"

    def _wait(self):
        for _ in range(100):
            try:
                if self.call("GET", "/status")["ready"]:
                    return
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        raise RuntimeError("chromedriver did not start within ten seconds")

    def call(self, method, path, body=None):
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            self.base + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with self.opener.open(request, timeout=60) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise RuntimeError(f"{value['error']}: {value['message'].splitlines()[0]}") from error

    def page(self, method, path, body=None):
        return self.call(method, self.session + path, body)

    def devtools(self, command, **params):
        return self.page("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def close(self):
        try:
            if hasattr(self, "session"):
                self.call("DELETE", self.session)
        except (OSError, RuntimeError):
            pass
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def look(driver, url, width, scheme):
    driver.devtools(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
    )
    driver.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    driver.page("POST", "/url", {"url": url})
    seen = driver.page("POST", "/execute/sync", {"script": LOOK, "args": []})
    # The page's own list leaves out files of this machine, so the browser is asked as well.
    asked = set(seen["requests"])
    for entry in driver.page("POST", "/se/log", {"type": "performance"}):
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent" and event["params"]["documentURL"] == url:
            asked.add(event["params"]["request"]["url"])
    seen["requests"] = sorted(name for name in asked if name != url and not name.startswith("data:"))
    seen["log"] = [
        entry["message"]
        for entry in driver.page("POST", "/se/log", {"type": "browser"})
        if entry["level"] in ("SEVERE", "WARNING")
    ]
    return seen


def faults(seen, scheme):
    """Sentences on what is wrong with one view of the page."""
    out = []
    if not seen["title"].strip():
        out.append("the document has no title")
    if seen["text"] < 100:
        out.append("the page shows next to no text")
    if seen["scheme"] != scheme:
        out.append(f"the browser did not switch to {scheme}")
    if seen["overflow"] > 0:
        out.append(f"the page is {seen['overflow']} px wider than the window")
    if seen["data"] != "object":
        out.append(f"the embedded result is not JSON ({seen['data']})")
    out += [f"the page asked for {name}" for name in seen["requests"]]
    out += [f"the console says: {message}" for message in seen["log"]]
    for chart in seen["charts"]:
        out += [f"{chart['id']}: {fault}" for fault in chart_faults(chart)]
    return out


def chart_faults(chart):
    if chart["svg"] is None:
        return ["has no svg"]
    out = []
    if chart["svg"]["width"] <= 100 or chart["svg"]["height"] <= 40:
        out.append(f"is only {chart['svg']['width']:.0f} × {chart['svg']['height']:.0f} px")
    if chart["shapes"] == 0:
        out.append("draws nothing")
    if chart["texts"] < 3:
        out.append("has no axis texts")
    if chart["unpainted"]:
        out.append(f"{chart['unpainted']} texts cannot be told from the background")
    if not chart["label"]:
        out.append("has no label for those who cannot see it")
    if not chart["caption"]:
        out.append("has no caption")
    return out


def screenshot(driver, path):
    size = driver.devtools("Page.getLayoutMetrics")["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    shot = driver.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    path.write_bytes(base64.b64decode(shot["data"]))
    print(f"screenshot: {path}")


def check(page, shot):
    found, backgrounds = [], {}
    with tempfile.TemporaryDirectory(prefix="check-page-", ignore_cleanup_errors=True) as profile:
        driver = Driver(profile)
        try:
            for scheme in SCHEMES:
                for width in WIDTHS:
                    seen = look(driver, page.as_uri(), width, scheme)
                    if not backgrounds:
                        for chart in seen["charts"]:
                            box = chart["svg"] or {"width": 0, "height": 0}
                            print(
                                f"{chart['id']}: {box['width']:.0f} × {box['height']:.0f} px,"
                                f" {chart['shapes']} shapes, {chart['texts']} texts"
                            )
                    backgrounds[scheme] = seen["background"]
                    found += [f"{scheme}, {width} px: {fault}" for fault in faults(seen, scheme)]
                    if shot:
                        screenshot(driver, shot.with_stem(f"{shot.stem}-{scheme}-{width}"))
        finally:
            driver.close()
    if len(set(backgrounds.values())) == 1:
        found.append("light and dark have the same background")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=pathlib.Path, metavar="PAGE.html")
    parser.add_argument(
        "--screenshot", type=pathlib.Path, metavar="OUT.png", help="writes OUT-light-1280.png and its three siblings"
    )
    args = parser.parse_args()
    if not args.page.is_file():
        print(f"NOT JUDGED: there is no file {args.page}")
        return 1
    try:
        found = check(args.page.resolve(), args.screenshot)
    except (OSError, RuntimeError) as error:
        print(f"NOT JUDGED: {error}; are chromium and chromium-driver installed?")
        return 1
    for fault in found:
        print(f"  {fault}")
    if found:
        print(f"NOT FIT: {args.page} has {len(found)} fault{'s' if len(found) > 1 else ''}")
        return 1
    print(f"FIT: {args.page} reads well at {' and '.join(map(str, WIDTHS))} px, light and dark, without a network")
    return 0


if __name__ == "__main__":
    sys.exit(main())
