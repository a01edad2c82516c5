"""TransferQueue over sockets in a folder of one user, in place of TCP ports.

TransferQueue calls `pickle.loads` on what it is sent and asks for no key: a port of it, on loopback
too, is a way for every user of the machine to run code as the one who trains. Where
`CONVSEARCH_SOCKETS` names a folder, its sockets are files there. Ray calls `install` in every
worker process (`worker_process_setup_hook`, set by the overlay): those of the queue itself never
import verl.
"""

import os
from pathlib import Path

from convsearch.listening import SOCKETS_VARIABLE


def install() -> None:
    """Where the folder is named, changes how this process turns ports into addresses."""
    folder = os.environ.get(SOCKETS_VARIABLE)
    if not folder:
        return
    import zmq
    from transfer_queue import controller
    from transfer_queue.storage import simple_storage
    from transfer_queue.utils import zmq_utils

    def address(_ip: str, port: int) -> str:
        return f"ipc://{Path(folder) / f'queue-{port}'}"

    def free_address(_ip: str, port: int) -> str:
        """To listen on. ZMQ would take over a socket that is there; TransferQueue tries again."""
        if (Path(folder) / f"queue-{port}").exists():
            raise zmq.ZMQError(zmq.EADDRINUSE)
        return address(_ip, port)

    zmq_utils.format_zmq_address = address
    controller.format_zmq_address = free_address
    simple_storage.format_zmq_address = free_address
