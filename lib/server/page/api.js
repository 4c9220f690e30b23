/** The server's own API, with the key that it may ask for. */
const keyName = 'node-diffusion-key'

/** A response, or an Error with the server's message. Asks for a key once where one is needed. */
export const call = async (path, init = {}, asked = false) => {
  const key = localStorage.getItem(keyName)
  const response = await fetch(path, {
    ...init,
    headers: { ...(init.headers ?? {}), ...(key ? { authorization: `Bearer ${key}` } : {}) }
  })
  if (response.status === 401 && !asked) {
    const given = prompt('This server asks for an API key')
    if (given) {
      localStorage.setItem(keyName, given)
      return call(path, init, true)
    }
  }
  if (response.ok) return response
  const body = await response.json().catch(() => ({}))
  throw new Error(body.error?.message ?? `the server answered ${response.status}`)
}

export const getJson = async (path) => (await call(path)).json()

export const postJson = async (path, body) =>
  (
    await call(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body)
    })
  ).json()

/** Server-sent events by fetch, which can send a key: calls back with (event, data) until the stream ends. */
export const events = async (path, signal, on) => {
  const response = await call(path, { signal })
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    text += value
    for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
      const block = text.slice(0, end)
      const data = /^data: (.*)$/m.exec(block)?.[1]
      if (data !== undefined) on(/^event: (.*)$/m.exec(block)?.[1] ?? 'message', JSON.parse(data))
    }
  }
}
