"""Where models run: one process beside the one that carries the calls, shared by all of them.

    voiceflow                                          the model process (nicer, one job at a time)
    processor ──▶ ModelHost ── queue ── Child ══ socket ══▶ Worker ──▶ a Model, loaded once
              ◀── the answer, or its pieces ◀═════════════

model    a Model names a class by its import path; the process makes it once
host     ModelHost: the queue, what is urgent, deadlines, cancelling, a process that dies
child    the process as its parent sees it
worker   what runs in it
wire     the messages between them
recent   the caller's audio of late, for models that look back

A model that recognises or speaks takes 20 to 200 ms of pure computing at a time. On the event loop that would
be up to ten lost packets for every other caller, and in a thread its Python parts still take turns with it.
"""

from voiceflow.models.host import ModelHost as ModelHost
from voiceflow.models.host import Urgency as Urgency
from voiceflow.models.model import INSTALL as INSTALL
from voiceflow.models.model import Model as Model
from voiceflow.models.model import ModelDied as ModelDied
from voiceflow.models.model import ModelError as ModelError
from voiceflow.models.model import need as need
from voiceflow.models.model import without_packages as without_packages
from voiceflow.models.recent import Recent as Recent
