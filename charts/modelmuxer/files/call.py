"""One streamed chat through the HTTP face, for `helm test`: exit status 0 if it came whole."""

import json
import os
import sys
import urllib.request

body = {"model": os.environ["MODEL"], "messages": [{"role": "user", "content": "Say that you work."}], "stream": True}
request = urllib.request.Request(  # noqa: S310 the address is the chart's own
    os.environ["BASE_URL"] + "/v1/chat/completions",
    json.dumps(body).encode(),
    {"authorization": "Bearer " + os.environ["MODELMUXER_API_KEY"], "content-type": "application/json"},
)
with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 likewise
    frames = [line.decode().strip() for line in answer if line.startswith(b"data:")]
print("\n".join(frames))
sys.exit(0 if frames and frames[-1] == "data: [DONE]" else 1)
