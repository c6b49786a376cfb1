// Where answers come from: the server that sent this page. `static.js` has the same names.

// Kept where a link to a place on the page does not take it away.
const given = location.hash.slice(1);
let token = given.length > 20 ? given : "";
try {
  if (token) sessionStorage.setItem("token", token);
  else token = sessionStorage.getItem("token") ?? "";
} catch { /* a browser that keeps nothing */ }

const tab = Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16)).join("");

export const about = "The networks run on the computer that this page comes from; pictures stay there.";
export class Superseded extends Error {}

// kind: of questions that do not take the place of others.
async function ask(path, body, type = "application/json", kind = "") {
  let reply;
  try {
    reply = await fetch(path, {
      method: body === undefined ? "GET" : "POST", body, cache: "no-store",
      headers: {
        "X-Tab": tab + kind, ...(body === undefined ? {} : { "Content-Type": type }),
        ...(token ? { "X-Token": token } : {}),
      },
    });
  } catch {
    throw new Error("the server does not answer: was it stopped? Start it again and reload");
  }
  if (reply.ok) return reply;
  if (reply.status === 409) throw new Superseded();
  let message = `${reply.status}`;
  try { message = (await reply.json()).error; } catch { /* no words */ }
  throw new Error(message);
}

export const exhibits = async () => (await ask("api/exhibits")).json();
export const inputs = async (exhibit) => (await ask("api/inputs", String(exhibit))).json();
export const receive = async (exhibit, file) =>
  (await ask(`api/picture?exhibit=${exhibit}`, file, "application/octet-stream")).json();

// The address of a picture, or null where the example is none.
export async function original(asked) {
  const reply = await ask("api/original", JSON.stringify(asked));
  return reply.headers.get("Content-Type") === "image/png"
    ? URL.createObjectURL(await reply.blob()) : null;
}

export async function answer(asked, kind = "") {
  const body = JSON.stringify(asked);
  const reply = await (await ask("api/answer", body, "application/json", kind)).json();
  for (const side of [reply.own, reply.beside]) {
    if (side?.picture) side.picture = `data:image/png;base64,${side.picture}`;
  }
  return reply;
}
