/** The package has types, but its `exports` hide them. What the tests use: */
declare module 'node-sd-webui' {
  interface Client {
    txt2img(options: object): Promise<{ images: string[]; info: string; parameters: object }>
    img2img(options: object): Promise<{ images: string[] }>
    pngInfo(options: object): Promise<{ steps: number; seed: number }>
  }
  const sdWebUi: (options: { apiUrl: string }) => Client
  export default sdWebUi
}
