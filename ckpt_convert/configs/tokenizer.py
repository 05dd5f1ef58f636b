"""Check, without transformers, that the files of a Hugging Face tokenizer are CLIP's and unchanged."""

from ckpt_convert.configs.keys import check_keys
from diffdis_ms.data.tokenizer import END, START, added_tokens, check_rules
from diffdis_ms.errors import CheckpointError, ConfigError
from diffdis_ms.text_files import read_json

CLASSES = ('CLIPTokenizer', 'CLIPTokenizerFast', None)
# our tokenizer pads and truncates itself; decoding is not used
# fmt: off
CONFIG_NO_EFFECT = (
    'model_max_length', 'name_or_path', 'special_tokens_map_file', 'tokenizer_file', 'clean_up_tokenization_spaces',
    'padding_side', 'truncation_side', 'max_length', 'stride', 'truncation_strategy', 'pad_to_multiple_of',
    'pad_token_type_id', 'padding', 'truncation', 'processor_class', 'use_fast', 'legacy', 'backend', 'is_local',
    'local_files_only', 'return_tensors', 'model_input_names', 'unk_token', 'add_bos_token', 'add_eos_token',
    'vocab_size', 'transformers_version', 'mask_token', 'cls_token', 'sep_token',
)
# fmt: on
CONFIG_ONLY = {
    'tokenizer_class': CLASSES,
    'add_prefix_space': (False, None),
    'do_lower_case': (True, None),
    'errors': ('replace', None),
    'split_special_tokens': (False, None),
    'auto_map': (None,),
}
SPECIAL = (
    'bos_token',
    'eos_token',
    'pad_token',
    'additional_special_tokens',
    'extra_special_tokens',
    'added_tokens_decoder',
)
FILE_NO_EFFECT = ('version', 'truncation', 'padding', 'post_processor', 'decoder')
MODEL_NO_EFFECT = ('vocab', 'merges', 'unk_token', 'fuse_unk')
MODEL_ONLY = {
    'type': ('BPE',),
    'dropout': (None, 0),
    'continuing_subword_prefix': ('', None),
    'end_of_word_suffix': ('</w>',),
    'byte_fallback': (False, None),
    'ignore_merges': (False, None),
}


def check_tokenizer(folder, pads_with_end=False):
    """Check all JSON files in a tokenizer's folder.

    Args:
        folder: Path with tokenizer.json, or vocab.json and merges.txt. pads_with_end: also refuse another padding token
            than the end token, because it changes c after the end of a text (not e).

    Returns:
        The number of tokens.

    Raises:
        CheckpointError: the tokenizer is not CLIP's, tokens were added, or files are damaged or contradict each other.
    """
    vocab, added = _vocabulary(folder)
    for name in ('tokenizer_config.json', 'special_tokens_map.json'):
        if (folder / name).is_file():
            where, cfg = folder / name, read_json(folder / name, error=CheckpointError)
            check_keys(cfg, where, SPECIAL, CONFIG_NO_EFFECT, CONFIG_ONLY)
            for key, token in (
                ('bos_token', START),
                ('eos_token', END),
                *([('pad_token', END)] if pads_with_end else []),
            ):
                if key in cfg and _content(cfg[key]) != token:
                    raise CheckpointError(f'{where}: {key} = {_content(cfg[key])!r} (only {token!r} can be converted)')
            added |= {token for token in map(_content, _listed(cfg)) if token is not None}
    if (folder / 'added_tokens.json').is_file():
        added |= set(read_json(folder / 'added_tokens.json', error=CheckpointError))
    extra = sorted(added - set(vocab))
    if extra:
        raise CheckpointError(added_tokens(folder, extra))
    for token, expected in ((START, len(vocab) - 2), (END, len(vocab) - 1)):
        if vocab.get(token) != expected:
            raise CheckpointError(
                f'{folder}: {token} has id {vocab.get(token)}, in CLIP\'s vocabulary of {len(vocab)} tokens it is'
                f' {expected}'
            )
    return len(vocab)


def _vocabulary(folder):
    """Read ({token: id}, tokens that tokenizer.json adds)."""
    whole, vocab = folder / 'tokenizer.json', None
    if (folder / 'vocab.json').is_file():
        vocab = read_json(folder / 'vocab.json', error=CheckpointError)
    if not whole.is_file():
        return vocab, set()
    content = read_json(whole, error=CheckpointError)
    check_keys(content, whole, ('added_tokens', 'normalizer', 'pre_tokenizer', 'model'), FILE_NO_EFFECT)
    model = content.get('model')
    if not isinstance(model, dict) or not isinstance(model.get('vocab'), dict):
        raise CheckpointError(f'{whole} holds no vocabulary (model.vocab)')
    check_keys(model, f'{whole}, model', (), MODEL_NO_EFFECT, MODEL_ONLY)
    try:
        check_rules(content.get('normalizer'), content.get('pre_tokenizer'), whole)
    except ConfigError as e:
        raise CheckpointError(str(e)) from None
    if vocab is not None and vocab != model['vocab']:
        raise CheckpointError(
            f'{folder}: vocab.json and tokenizer.json have different vocabularies; remove the wrong one'
        )
    return model['vocab'], {token for token in map(_content, content.get('added_tokens') or ()) if token is not None}


def _listed(cfg):
    """Tokens in a config other than start, end and padding, and the padding token."""
    decoder = cfg.get('added_tokens_decoder')
    more = [cfg.get('additional_special_tokens'), cfg.get('extra_special_tokens')]
    named = list(decoder.values()) if isinstance(decoder, dict) else []
    for tokens in more:
        named += list(tokens.values()) if isinstance(tokens, dict) else tokens if isinstance(tokens, list) else []
    return [*named, *(cfg.get(f'{kind}_token') for kind in ('pad', 'unk', 'mask', 'cls', 'sep'))]


def _content(token):
    """A token's text: a string, or a mapping with `content`."""
    token = token.get('content') if isinstance(token, dict) else token
    return token if isinstance(token, str) else None
