// The REST API's upload door: create, parts, complete, abort. Parts that arrived stay; only missing ones are sent.

const ATTEMPTS = 6;
const FIRST_PAUSE_MILLISECONDS = 500;

/** The API refused, in its own words. */
export class Refused extends Error {
  constructor(status, { message, rule, request_id: requestId } = {}) {
    super(message ?? "");
    this.status = status;
    this.rule = rule ?? "";
    this.requestId = requestId ?? "";
  }
}

export class UploadApi {
  constructor({ organization, csrfToken }) {
    this.query = `?organization=${encodeURIComponent(organization)}`;
    this.csrfToken = csrfToken;
  }

  create(description, signal) {
    return this.#json("POST", "/api/v1/artifacts", description, signal);
  }

  read(artifact, signal) {
    return this.#json("GET", `/api/v1/artifacts/${artifact}`, null, signal);
  }

  complete(artifact, signal) {
    return this.#json("POST", `/api/v1/artifacts/${artifact}/complete`, null, signal);
  }

  abort(artifact) {
    return this.#json("DELETE", `/api/v1/artifacts/${artifact}`, null);
  }

  /** Send one part, again after a pause where the network or the server failed; `progress` hears bytes sent. */
  async part(artifact, name, number, bytes, { signal, progress }) {
    const url = `/api/v1/artifacts/${artifact}/files/${encodeURIComponent(name)}/parts/${number}${this.query}`;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#put(url, bytes, signal, progress);
      } catch (error) {
        const worthIt = !(error instanceof Refused) || error.status >= 500 || error.status === 429;
        if (signal.aborted || !worthIt || attempt === ATTEMPTS) throw error;
        await pause(FIRST_PAUSE_MILLISECONDS * 2 ** (attempt - 1), signal);
      }
    }
  }

  async #json(method, path, body, signal) {
    const response = await fetch(path + this.query, {
      method,
      headers: { "X-CSRFToken": this.csrfToken, "Content-Type": "application/json" },
      body: body === null ? undefined : JSON.stringify(body),
      signal,
    });
    if (response.status === 204) return null;
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Refused(response.status, answer.error);
    return answer;
  }

  /** XMLHttpRequest and not fetch: only it says how much of a body has left. */
  #put(url, bytes, signal, progress) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("PUT", url);
      request.setRequestHeader("X-CSRFToken", this.csrfToken);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.upload.onprogress = (event) => progress(event.loaded);
      request.onload = () => (request.status < 300 ? resolve() : reject(refused(request)));
      request.onerror = () => reject(new TypeError("network"));
      request.onabort = () => reject(signal.reason);
      signal.addEventListener("abort", () => request.abort(), { once: true });
      request.send(bytes);
    });
  }
}

function refused(request) {
  try {
    return new Refused(request.status, JSON.parse(request.responseText).error);
  } catch {
    return new Refused(request.status);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
