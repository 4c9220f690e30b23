/** Pictures that were painted, kept in this browser (IndexedDB): { id, blob, parameters, form }. */
const open = () =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open('node-diffusion', 1)
    request.onupgradeneeded = () => request.result.createObjectStore('pictures', { keyPath: 'id', autoIncrement: true })
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })

const run = async (mode, body) => {
  const database = await open()
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction('pictures', mode)
      const request = body(transaction.objectStore('pictures'))
      transaction.oncomplete = () => resolve(request.result)
      transaction.onerror = () => reject(transaction.error)
    })
  } finally {
    database.close()
  }
}

export const all = () => run('readonly', (store) => store.getAll())
export const add = (picture) => run('readwrite', (store) => store.add(picture))
export const remove = (id) => run('readwrite', (store) => store.delete(id))
