"""The engines' own client (``tritonclient``) with the same windows: run by ``loadtest.remote`` in another environment.

``engine_client.py HOST:PORT MODEL WINDOWS.npz STREAMS SECONDS`` prints seconds per window alone, and windows a second.
"""

import asyncio
import json
import sys
import time

import numpy as np
import tritonclient.grpc.aio as triton


async def main() -> None:
    """Measure and print."""
    address, model, path, streams, seconds = sys.argv[1:]
    windows = np.load(path)
    client = triton.InferenceServerClient(address)
    outputs = [triton.InferRequestedOutput(name) for name in ("labels", "hazards")]

    async def ask(index: int) -> None:
        inputs = []
        for name in windows.files:
            array = windows[name][index % len(windows[name])][None]
            inputs.append(triton.InferInput(name, array.shape, "INT64"))
            inputs[-1].set_data_from_numpy(array)
        result = await client.infer(model, inputs, outputs=outputs)
        for name in ("labels", "hazards"):
            result.as_numpy(name)

    for index in range(20):
        await ask(index)
    alone = []
    for index in range(300):
        began = time.perf_counter()
        await ask(index)
        alone.append(time.perf_counter() - began)
    done, end = 0, time.perf_counter() + float(seconds)

    async def stream(index: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await ask(index)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(stream(index) for index in range(int(streams))))
    sys.stdout.write(json.dumps({"alone": alone, "speed": done / (time.perf_counter() - began)}) + "\n")
    await client.close()


asyncio.run(main())
