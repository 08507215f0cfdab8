// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IParameters} from "./interfaces/IParameters.sol";

/// @title Every protocol parameter, and the identity of the network.
/// @dev Invariant: each value lies within the bounds fixed at deployment, and no key is added or removed later.
/// Deployed first: its address is the `verifyingContract` of the network's EIP-712 domain, which it reports
/// through ERC-5267. Source: PoT 3.3.4 (parameters decided by vote), 3.4 "Flexibility".
contract Parameters is IParameters, Ownable2Step, EIP712 {
    struct Bounds {
        uint120 low;
        uint120 high;
        bool known;
    }

    mapping(bytes32 key => uint256 value) private _values;
    mapping(bytes32 key => Bounds bounds) private _bounds;

    constructor(
        address owner_,
        bytes32[] memory keys,
        uint256[] memory values,
        uint256[] memory lows,
        uint256[] memory highs
    ) Ownable(owner_) EIP712("DTN", "1") {
        require(values.length == keys.length, Parameters__LengthMismatch(values.length, keys.length));
        require(lows.length == keys.length, Parameters__LengthMismatch(lows.length, keys.length));
        require(highs.length == keys.length, Parameters__LengthMismatch(highs.length, keys.length));
        for (uint256 i = 0; i < keys.length; ++i) {
            bytes32 key = keys[i];
            require(key != bytes32(0) && !_bounds[key].known, Parameters__KeyInvalid(key));
            _bounds[key] = Bounds(SafeCast.toUint120(lows[i]), SafeCast.toUint120(highs[i]), true);
            _set(key, values[i]);
        }
    }

    /// @inheritdoc IParameters
    function set(bytes32 key, uint256 value) external onlyOwner {
        require(_bounds[key].known, Parameters__Unknown(key));
        _set(key, value);
    }

    /// @inheritdoc IParameters
    function get(bytes32 key) external view returns (uint256 value) {
        value = _values[key];
        // Only a zero may be a parameter that does not exist; all others cost one read.
        require(value != 0 || _bounds[key].known, Parameters__Unknown(key));
    }

    /// @inheritdoc IParameters
    function boundsOf(bytes32 key) external view returns (uint256 low, uint256 high) {
        Bounds storage bounds = _bounds[key];
        require(bounds.known, Parameters__Unknown(key));
        return (bounds.low, bounds.high);
    }

    function _set(bytes32 key, uint256 value) private {
        Bounds storage bounds = _bounds[key];
        require(
            bounds.low <= value && value <= bounds.high,
            Parameters__OutOfBounds(key, value, bounds.low, bounds.high)
        );
        _values[key] = value;
        emit ParameterChanged(key, value);
    }
}
