// Requests to the server: JSON in, JSON out, and one sentence where it refuses.

const csrf = document.querySelector("meta[name=csrf]").content;

export class Refusal extends Error {
  constructor(status, body) {
    super(body.error || `the server replied with status ${status}`);
    this.status = status;
    this.body = body;
  }
}

export const get = (path, parameters = {}) => send(`${path}?${new URLSearchParams(parameters)}`, {});

export const post = (path, body = {}) =>
  send(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Thaw-CSRF": csrf },
    body: JSON.stringify(body),
  });

export const postFile = (path, file) =>
  send(path, { method: "POST", headers: { "Content-Type": "application/octet-stream", "X-Thaw-CSRF": csrf }, body: file });

async function send(path, options) {
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("Studio cannot be reached; start it again with thaw studio, and open its new address");
  }
  const body = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Refusal(reply.status, body);
  return body;
}
