/** Lays a component out in a session. */
import { translating, type NativeComponent, type NativeSession } from './binding.js'
import type { ComponentWeights } from './models/weights.js'

/** @throws DiffusionError ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT, ERR_ND_OUT_OF_MEMORY */
export const loadComponent = (
  session: NativeSession,
  kind: NativeComponent,
  config: object,
  weights: ComponentWeights
): Promise<void> =>
  translating(
    session.load(
      kind,
      config,
      weights.files,
      weights.tensors.map((t) => [t.name, t.file, t.stored, t.view] as const)
    )
  )
