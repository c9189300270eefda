"""The images without a container engine: the Dockerfile replayed in a clean root, and what comes out, run.

    python -m tests.image                            # DEVICE=cpu, torch bound in where this Python's fits
    python -m tests.image --full --device cuda       # everything installed as the image does, some gigabytes

Each stage begins as a clean Debian of the release that its FROM names (`base`), each RUN goes by `chroot` into a
namespace of mounts and processes of its own (`chamber`), as the parsed Dockerfile says (`dockerfile`, `stages`), with
the files of the context that `.dockerignore` lets through (`context`). What is made is then run as a container would
be: as its user, without rights, with a read-only root, a network of its own and a volume.

What differs from a build by an engine:

- The base is Debian's minimal system with Debian's own Python (3.11 in bookworm) and its headers, `python` on the PATH,
  not `python:3.12-slim-bookworm`. The lock file holds for both. What the official image has besides is not there.
- A stage is a folder: there are no layers, and no cache of them.
- pip and apt get the settings that they have outside (an index, certificates, a proxy), so that a mirror works.
- Without `--full`, torch and its packages for CUDA are not downloaded. The Dockerfile's own way to leave them out is
  taken, TORCH_INDEX, with an index that holds a wheel of torch's name, version and description and none of its code;
  the code is that of the Python that runs this, bound in read-only when the image is run. Where that one has another
  version of Python or of torch than the image would, everything is installed after all.
"""
