"""Every option of every method, written once."""

from n4ax_bids.options.base import FIELD_SCALES as FIELD_SCALES
from n4ax_bids.options.base import MASK_PROGRAMS as MASK_PROGRAMS
from n4ax_bids.options.base import MASK_WORDS as MASK_WORDS
from n4ax_bids.options.n4 import DEFAULT_PRESET as DEFAULT_PRESET
from n4ax_bids.options.n4 import PRESET_HELP as PRESET_HELP
from n4ax_bids.options.n4 import PRESETS as PRESETS
from n4ax_bids.options.n4 import N4Options as N4Options
from n4ax_bids.options.n4 import preset as preset
from n4ax_bids.options.n4 import require_options as require_options
from n4ax_bids.options.n4 import sloppy as sloppy
from n4ax_bids.options.stack import StackOptions as StackOptions
from n4ax_bids.options.tissue import TissueOptions as TissueOptions
from n4ax_bids.options.zero_shot import ZeroShotOptions as ZeroShotOptions
