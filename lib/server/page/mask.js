/** The picture to begin with, and the mask that is painted over it. */
const element = (id) => document.getElementById(id)

export class PictureWithMask {
  constructor(onChange) {
    this.image = element('source')
    this.canvas = element('mask')
    this.holder = this.image.parentElement
    this.onChange = onChange
    this.blob = null
    this.painted = false
    const draw = this.canvas.getContext('2d')
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect()
      return [
        ((event.clientX - box.left) / box.width) * this.canvas.width,
        ((event.clientY - box.top) / box.height) * this.canvas.height,
        (Number(element('brush').value) / box.width) * this.canvas.width
      ]
    }
    let last = null
    const stroke = (event) => {
      const [x, y, size] = at(event)
      draw.strokeStyle = draw.fillStyle = '#ff5533'
      draw.lineWidth = size
      draw.lineCap = 'round'
      draw.beginPath()
      draw.moveTo(...(last ?? [x, y]))
      draw.lineTo(x + 0.01, y)
      draw.stroke()
      last = [x, y]
      this.painted = true
    }
    this.canvas.addEventListener('pointerdown', (event) => {
      this.canvas.setPointerCapture(event.pointerId)
      last = null
      stroke(event)
    })
    this.canvas.addEventListener('pointermove', (event) => {
      if (event.buttons & 1) stroke(event)
    })
    this.canvas.addEventListener('pointerup', () => this.onChange())
  }

  async set(blob) {
    this.blob = blob
    this.clearMask()
    URL.revokeObjectURL(this.image.src)
    this.holder.hidden = blob === null
    if (blob) {
      this.image.src = URL.createObjectURL(blob)
      await this.image.decode()
      this.canvas.width = this.image.naturalWidth
      this.canvas.height = this.image.naturalHeight
    }
    this.onChange()
  }

  clearMask() {
    this.canvas.getContext('2d').clearRect(0, 0, this.canvas.width, this.canvas.height)
    this.painted = false
    this.onChange()
  }

  /** White where something was painted, in base64. */
  async maskBase64() {
    const canvas = document.createElement('canvas')
    canvas.width = this.canvas.width
    canvas.height = this.canvas.height
    const draw = canvas.getContext('2d')
    draw.drawImage(this.canvas, 0, 0)
    draw.globalCompositeOperation = 'source-in'
    draw.fillStyle = 'white'
    draw.fillRect(0, 0, canvas.width, canvas.height)
    draw.globalCompositeOperation = 'destination-over'
    draw.fillStyle = 'black'
    draw.fillRect(0, 0, canvas.width, canvas.height)
    return toBase64(await new Promise((resolve) => canvas.toBlob(resolve, 'image/png')))
  }
}

export const toBase64 = async (blob) => {
  const bytes = new Uint8Array(await blob.arrayBuffer())
  let text = ''
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768))
  return btoa(text)
}
